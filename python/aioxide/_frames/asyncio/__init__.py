"""Answers the folder of asyncio."""
