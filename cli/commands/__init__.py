"""One module a command, in the folder of the form whose bundles it runs; `bundle` holds those for every form.

Each has `HELP` and a function `run`, which `cli/main.py` finds by the command's name. May import everything
else in `cli/`, and nothing in `cli/` imports them but `main.py`. Read `decoder/generate.py` first.
"""
