"""`childproof.aio`: commands in an event loop, asyncio's or trio's."""
