"""The figures and tables that can be reproduced, a module for each; `tools/reproduce.py` runs them."""
