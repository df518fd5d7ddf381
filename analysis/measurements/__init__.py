"""What is measured on finished networks: similarity of representations, predictors of transfer."""
