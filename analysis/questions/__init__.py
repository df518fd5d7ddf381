"""Small studies that ask one question each, with one figure and one table,
from the tables of analysis.collect alone.

A question is a module here: its first line says what is asked, ``asked(networks)`` whether finished
networks vary what it is about, ``draw(tables)`` returns the drawing. A new one is a file, and its
name in QUESTIONS.
"""

# The first that a study asks is drawn.
QUESTIONS = ("volume", "preserved", "variants", "longer", "wordnet", "replicates")
