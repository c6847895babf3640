"""The comparison of cores in reinforcement learning, ``mnm-rl reproduce rl``; its protocol: docs/rl.md."""
