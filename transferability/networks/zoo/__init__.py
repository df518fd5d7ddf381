"""Networks of torchvision and timm as lists of layers."""
