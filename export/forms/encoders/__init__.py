"""What the export of an encoder knows of a model that reads texts, images or audio, and how its graphs are written.

May import what `export/forms` may; the steps of an export are there. Read `text_encoder.py` first.
"""
