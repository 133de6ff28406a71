"""Generated from protos/hotshard/v1 by `make protos`; committed so that nobody needs protoc."""
