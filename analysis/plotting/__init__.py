"""Styles, axes, layout and captions of figures, and the selection of networks."""
