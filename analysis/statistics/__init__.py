"""Statistics of studies: contrasts, intervals and claims."""
