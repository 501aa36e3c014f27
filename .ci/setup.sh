#!/usr/bin/env bash
# Makes the virtual environment VENV with the OpenMMLab stack of REQUIREMENTS and this package.
# Called by the Makefile: .ci/setup.sh VENV REQUIREMENTS
set -euo pipefail

venv=$1
requirements=$2
base_python=${PYTHON:-python3.11}
python=$venv/bin/python
log=$venv/mmcv-build.log

fail() {
    echo "setup: $*" >&2
    exit 1
}

requirement() { # the line of the requirements file that starts with one of these names
    grep -E "^($1)[=<>]" "$requirements"
}

ops_work() {
    "$python" -c 'import mmcv.ops' 2>/dev/null
}

install_mmcv() {
    "$python" -m pip install --verbose --no-build-isolation --no-binary "$mmcv_name" \
        --constraint "$requirements" "$mmcv" 2>&1 | tee "$log" | awk '
            match($0, /\[[0-9]+\/[0-9]+\]/) {
                print "    compiling mmcv ops " substr($0, RSTART, RLENGTH); fflush()
            }' || fail "mmcv could not be built; the last lines of $log:
$(tail -n 20 "$log")"
}

command -v "$base_python" >/dev/null || fail "$base_python not found: install Python 3.11, or name \
another one: make setup PYTHON=python3.12"
command -v g++ >/dev/null || fail 'g++ not found: mmcv is compiled here and needs gcc and g++'
[ -x "$python" ] || "$base_python" -m venv "$venv"
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$include/Python.h" ] || fail "$include/Python.h not found: install Python's headers \
(python3-dev), mmcv is compiled against them"

echo '==> build tools and torch'
# pip 26 is untested with the legacy setup.py of mmcv.
"$python" -m pip install --quiet 'pip<26' ninja wheel "$(requirement setuptools)"
"$python" -m pip install --constraint "$requirements" "$(requirement torch)"

mmcv=$(requirement 'mmcv|onedl-mmcv')
mmcv_name=${mmcv%%[=<>]*}
if ! ops_work; then
    echo "==> $mmcv: compiled here, about ten minutes on two cores (seconds if pip has cached it)"
    export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)}
    # Debug information and full optimisation double the time of the build.
    export CFLAGS="-g0 -O1 ${CFLAGS:-}"
    install_mmcv
    if ! ops_work; then
        # A wheel built without torch, or against another torch, has no working ops.
        echo "==> pip's cached $mmcv_name has no working ops: building it anew, about ten minutes"
        "$python" -m pip uninstall --quiet --yes "$mmcv_name"
        "$python" -m pip cache remove "$mmcv_name" || true
        "$python" -m pip cache remove "${mmcv_name//-/_}" || true
        install_mmcv
        ops_work || fail "mmcv was built, but its ops cannot be imported:
$("$python" -c 'import mmcv.ops' 2>&1 | tail -n 3)"
    fi
fi

echo '==> MMDetection, test tools and this package'
"$python" -m pip install --no-build-isolation --requirement "$requirements" \
    --requirement requirements-pretrain.txt --requirement requirements-export.txt \
    --requirement requirements-test.txt
# Without its dependencies: one of them, a download client, forces a setuptools of 2022.
"$python" -m pip install --quiet --no-deps openmim==0.3.9
if ! "$python" -c 'import torchvision' 2>/dev/null; then
    # A torchvision built for CUDA cannot load its operators beside a torch for CPUs, and its import
    # fails where it describes them. Nothing here calls one: it is enough that they are declared.
    "$python" - <<'EOF'
from importlib.util import find_spec
from pathlib import Path

init = Path(find_spec('torchvision').origin)
declared = """import torch

_declared = torch.library.Library('torchvision', 'DEF')
_declared.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
_declared.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
"""
init.write_text(declared + init.read_text())
EOF
fi
"$python" -m pip install --quiet --no-build-isolation --no-deps --editable .
"$python" -c 'import mmdet_hadaptive, mmpretrain'
echo "==> ready: $venv"
