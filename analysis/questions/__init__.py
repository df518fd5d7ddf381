"""Questions: small studies with one figure and one table each, from the tables of analysis.collect
alone.

Each question is a module here. The first line of its docstring states the question,
``asked(networks)`` returns whether finished networks vary its factor, and ``draw(tables)`` returns
the drawing. To add a question, add its module and its name to QUESTIONS.
"""

# The first question that applies to a study is drawn.
QUESTIONS = ("volume", "preserved", "variants", "longer", "wordnet", "replicates")
