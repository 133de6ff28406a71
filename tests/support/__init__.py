"""What tests share: real servers, and servers that misbehave."""
