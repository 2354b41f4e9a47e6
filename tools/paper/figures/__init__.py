"""The figures and tables that can be reproduced, a module for each; `tools/paper/reproduce.py` runs them."""
