"""Speech recognition by connectionist temporal classification (CTC): one run gives all tokens.

May import what stands before it in `runtime/speech`, and the folders below. Read `transcription.py` first.
"""
