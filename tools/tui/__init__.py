"""`l4lab debug`: a machine under a debugger, on a terminal.

session.py   one machine and what can be done with it; knows no terminal
faults.py    the page faults under way and their seven steps, forwards and backwards
code.py      instructions and source lines around a place
panes.py     what each part of the screen shows, as styled text
app.py       the screen, its keys and buttons
"""
