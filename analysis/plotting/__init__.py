"""How figures look: styles, axes, captions, which networks they show."""
