import os

# Threads that spin while they wait starve any other process on a small machine. Passive waiting costs nothing on an
# idle one (docs/performance.md); it acts only if it is set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
