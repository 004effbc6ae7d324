"""The wheel holds our three packages with their tables, and nothing else: no tests, no generic top-level names."""

import sys
import zipfile

EXPECTED = {"ioaware", "ioaware_kernels", "ioaware_proofs"}
NEEDED = (
    "ioaware/py.typed",
    "ioaware/devices/a100-sxm-40gb.toml",
    "ioaware/workloads/pi0.toml",
    "ioaware_kernels/cuda/flash2.cu",
    "ioaware_kernels/cuda/flash2.toml",
    "ioaware_kernels/golden/flash2_d64.ptx",
    "ioaware_kernels/golden/manifest.json",
    "ioaware_kernels/counters/metrics.toml",
    "ioaware_proofs/theories/LowerBound.v",
    "ioaware_proofs/axioms.expected",
    "ioaware_proofs/optima.csv",
)

names = zipfile.ZipFile(sys.argv[1]).namelist()
top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
missing = [name for name in NEEDED if name not in names]
compiled = [name for name in names if "/theories/" in name and not name.endswith(".v")]  # they are made where they run
if top != EXPECTED or missing or compiled:
    sys.exit(
        f"{sys.argv[1]}: top-level names {sorted(top)}, expected {sorted(EXPECTED)}; missing {missing}; "
        f"no source of Coq's: {compiled}"
    )
print(f"{len(names)} files; top-level names {sorted(top)}")
