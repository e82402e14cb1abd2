"""Hooks for hosts that offer no switch of their own for the event loop.

Each module is named after its host and imports it; nothing here is imported unless somebody asks
for it. Hosts that take a loop factory need none of this: they are given `aioxide.new_event_loop`.
"""
