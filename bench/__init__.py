"""The benchmark: corpora, tasks, kernels and what they found. `python -m bench --help`.

Measuring itself, and the contenders, are in `bsipatch.bench`, because `bsipatch bench
OLD NEW` needs them on a machine without this repository.
"""

import sys
from pathlib import Path

# The corpora modules are scripts as well, and import one another by bare names.
if str(Path(__file__).parent) not in sys.path:
    sys.path.append(str(Path(__file__).parent))
