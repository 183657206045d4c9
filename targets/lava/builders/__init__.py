"""From a layout to a network of Lava Processes, batched or faithful; in the supervisor."""
