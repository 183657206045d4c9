"""What tests share: generators of networks, and a plain second reading of the IR."""
