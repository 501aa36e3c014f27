#!/bin/bash
# Measures every published time of the detectors that are compared: README's table, those of
# research/reports/benchmark.md and research/reports/export.md, and the picture of accuracy over
# time. From the root of a clone, on a machine that does nothing else, about 20 minutes:
#
#     research/tools/measure_times.sh [FOLDER] [TABLE...]
#
# The tables are costs, picture, runtimes and one-thread; all if none is named. The last one needs
# ExecuTorch and LiteRT's converter (requirements-litert.txt), and leaves out what is not installed.
set -euo pipefail
out=${1:-work_dirs/times}
tables=("${@:2}")
[ ${#tables[@]} -gt 0 ] || tables=(costs picture runtimes one-thread)
python=${PYTHON:-.venv/bin/python}
ours=configs/ssdlite/ssdlite_hadaptive
others=research/configs/baselines/ssdlite
end=8xb24-600e_coco
mkdir -p "$out"

compare() {
    local name=$1
    shift
    "$python" -m research.tools.compare_costs "$@" --markdown "$out/$name.md" | tee "$out/$name.txt"
}

costs() { # README and benchmark.md, two minutes
    compare costs ${ours}-*_$end.py ${others}_*_$end.py \
        --reference ssdlite_mobilenetv3-large_$end --rounds 50
}

picture() { # backbones_accuracy.png of benchmark.md, one minute
    "$python" - "$out/means.jsonl" <<'PYTHON'
import json, re, sys
from collections import defaultdict
from pathlib import Path

runs = map(json.loads, Path('research/reports/backbones_results.jsonl').read_text().splitlines())
scores = {}
for run in runs:
    # What was trained twice has the published result first.
    scores.setdefault((run['config'], run['seed']), run['coco/bbox_mAP'])
# The second data set and the third were trained at the best learning rate only.
best = dict(re.match(r'cards_(.*)-7e-(lr.*)', name).groups() for name, _ in scores if 'cards_' in name)
means = defaultdict(list)
for (name, seed), score in scores.items():
    detector, rate = re.match(r'[a-z]*_(.*)-7e-(lr.*)', name).groups()
    if rate == best[detector]:
        means[detector, seed].append(score)
with open(sys.argv[1], 'w') as file:
    for (detector, _), values in means.items():
        assert len(values) == 3, (detector, values)
        entry = {'config': f'ssdlite_{detector}_8xb24-600e_coco', 'coco/bbox_mAP': sum(values) / 3}
        print(json.dumps(entry), file=file)
PYTHON
    compare picture ${ours}-{s-ir,s}_$end.py ${others}_{mobilenetv3-large,mobilenetv4-conv-small,ghostnet}_$end.py \
        --rounds 30 --results "$out/means.jsonl" --picture "$out/backbones_accuracy.png"
}

runtimes() { # research/reports/export.md, two threads, seven minutes
    compare runtimes ${ours}-{s,s-ir,m,m-ir,l,l-ir}_$end.py \
        ${others}_{mobilenetv2,mobilenetv3-large,mobilenetv4-conv-small,ghostnet}_$end.py \
        --reference ssdlite_mobilenetv2_$end --prune ssdlite_hadaptive-s_$end \
        --formats onnx openvino ncnn opencv --rounds 50 --exported "$out/exported"
}

one-thread() { # research/reports/export.md, one thread, ten minutes
    local formats=(onnx openvino ncnn opencv)
    for format in executorch litert; do
        "$python" -c "import ${format/litert/litert_torch}" 2>/dev/null && formats+=($format)
    done
    compare one-thread ${ours}-{s,m,l}_$end.py \
        ${others}_{mobilenetv2,mobilenetv3-large,mobilenetv4-conv-small,ghostnet}_$end.py \
        --reference ssdlite_mobilenetv2_$end --prune ssdlite_hadaptive-s_$end \
        --formats "${formats[@]}" --threads 1 --rounds 10 --cpu-time --exported "$out/exported"
}

for table in "${tables[@]}"; do
    echo "== $table: $(date)"
    "$table"
done
