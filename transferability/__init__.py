"""How transferable are features? Cells, splits, lockstep training and the run store of the study."""
