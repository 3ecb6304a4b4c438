"""The commands of mlic-train. No other room imports this one."""

import os

# PyTorch's threads wait for each other in loops that use the CPU. Where other programs want it too, a step of training
# then takes several times as long as with threads that sleep. OpenMP reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
