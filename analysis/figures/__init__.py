"""The figures of a study, from its tables alone (never from the run store).

Every mark is one network. Networks that are missing from the study are counted in the caption.

Each figure is a module here with ``draw(tables)``, which returns the drawing, or a text that says
why the study has none. To add a figure, add its module and its name to FIGURES.
"""

# In drawing order. Without the design of the study, which needs no networks.
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
