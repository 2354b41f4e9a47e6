"""`l4lab debug`: a machine under a debugger, on a terminal.

session.py               one machine and what can be done with it; knows no terminal
faults.py, tracker.py    the page faults under way and their seven steps, forwards and backwards
code.py, places.py       instructions and source lines; functions and addresses that a person names
panes.py                 what each part of the screen shows, as styled text
app.py, screens.py       the screens; with keys.py and style.py
screenshot.py            the picture in the documentation
"""
