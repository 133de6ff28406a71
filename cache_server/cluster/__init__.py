"""Many nodes as one cache: who owns what, and how members hand each other bytes."""
