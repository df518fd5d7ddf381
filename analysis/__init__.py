import os

# Figures are only written to files. Matplotlib reads the variable on import, and an unknown name in
# it would end every command.
os.environ["MPLBACKEND"] = "agg"
