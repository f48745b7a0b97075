#!/bin/bash
# Fuzzes fec's way in (fec_ingress.pyx) with libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer:
#   tests/fuzz/fec_ingress/run.sh [libFuzzer arguments]          LAYER45_FUZZ_S: for how many seconds (60)
#   tests/fuzz/fec_ingress/run.sh FILE...                        runs these inputs once
#   tests/fuzz/fec_ingress/run.sh -set_cover_merge=1 NEW OLD...  the fewest inputs of folders that cover as much
# Status 0: nothing was found, or there is no clang. An instrumented copy of the tree is kept in build/fec_ingress, and in
# it the growing corpus, and what broke something. PYTHON (default: the checkout's .venv) and CLANG are heeded.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
python="${PYTHON:-$here/.venv/bin/python}"
copy="$here/build/fec_ingress"
harness="$copy/tests/fuzz/fec_ingress"
seconds="${LAYER45_FUZZ_S:-60}"

find_clang() {  # one that has libFuzzer
    local name
    for name in ${CLANG:-} clang clang-{25..14}; do
        command -v "$name" >/dev/null || continue
        echo 'int LLVMFuzzerTestOneInput(const char *b, long n) { return 0; }' \
            | "$name" -fsanitize=fuzzer,address,undefined -x c -o /dev/null - 2>/dev/null && { echo "$name"; return; }
    done
    return 1
}

if ! clang="$(find_clang)"; then
    echo "fec_ingress: NOT RUN: no clang with libFuzzer; on Debian: apt-get install clang libclang-rt-dev" >&2
    exit 0
fi

arguments=()
for each in "$@"; do
    [ -e "$each" ] && each="$(realpath "$each")"
    arguments+=("$each")
done
mkdir -p "$copy/corpus" "$copy/found"
rm -f "$copy"/{fastpath,modules/*,layer45,tests/fuzz/fec_ingress}/*.{py,pyx,pxd}  # the tree may have fewer now
tar --create --directory "$here" --exclude=./.venv --exclude=./.git --exclude=./build --exclude='*.so' \
    --exclude='./fastpath/*.c' --exclude='./modules/*/*.c' . | tar --extract --directory "$copy"
cd "$copy"

# All extensions are instrumented for libFuzzer, the harness is not: what it decodes is no coverage.
export CC="$clang"
if ! { LAYER45_SANITIZE=address,undefined,fuzzer-no-link "$python" setup.py build_ext --inplace &&
       CFLAGS="-fsanitize=address,undefined -fno-omit-frame-pointer -g -O1" PYTHONPATH="$copy" "$python" -c "
from pathlib import Path
from layer45.module_build import build_module
build_module(Path('$harness'))" &&
       "$clang" -fsanitize=fuzzer,address,undefined -g -O1 -Wall -Wextra -rdynamic -o fuzzer "$harness/fuzzer.c" \
           $("$python" -c "
from sysconfig import get_config_var as of, get_path
print('-I' + get_path('include'), '-L' + of('LIBDIR'), '-lpython' + of('LDVERSION'), of('LIBS'), of('SYSLIBS'))")
     } >build.log 2>&1 </dev/null
then
    cat build.log >&2
    echo "fec_ingress: compiling failed, see above" >&2
    exit 1
fi

# Python's own leaks are not ours to count; fec_ingress.pyx counts what the module takes.
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:abort_on_error=0:symbolize=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export PYTHONPATH="$copy:$harness:$("$python" -c 'from sysconfig import get_path; print(get_path("platlib"))')"
options=(-detect_leaks=0 -timeout=30 -rss_limit_mb=3000 -artifact_prefix="$copy/found/")
if [[ "${arguments[*]:-}" =~ ^(/|-merge=1|-set_cover_merge=1) ]]; then
    exec ./fuzzer "${options[@]}" "${arguments[@]}"
fi
exec ./fuzzer "${options[@]}" -max_total_time="$seconds" -max_len=1024 -print_final_stats=1 "${arguments[@]}" \
    corpus "$harness/corpus"
