"""Raises an error that is no Exception when it is imported."""

import asyncio

raise asyncio.CancelledError("torn down")
