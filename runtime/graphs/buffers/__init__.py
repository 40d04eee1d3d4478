"""Where keys, values and states live: in host memory, or on a device.

May import `runtime/bundle` and what is below it. Read `contract.py` first.
"""
