"""The decoder form: prompts, chats, batches and scores over one graph.

May import `runtime/generation`, `runtime/graphs` and what is below them. Read `model.py` first.
"""
