import os

# Figures become files alone. Matplotlib reads the variable at its import, and an unknown name there
# would end every command.
os.environ["MPLBACKEND"] = "agg"
