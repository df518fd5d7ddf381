"""The figures of a study, from its tables alone (never from the run store).

Every mark is one network. A network that is missing from the study is never dropped silently: the
caption counts it.

A figure is a module here with ``draw(tables)``, which returns the drawing, or in words why the
study has none. A new one is a file, and its name in FIGURES.
"""

# In the order in which they are drawn. The design of the study, which needs no networks,
# is not one of them.
FIGURES = (
    "advice",
    "accuracy",
    "distance",
    "dissimilar",
    "decomposition",
    "volume",
    "predictors",
    "filters",
    "similarity",
    "activity",
    "curves",
)
