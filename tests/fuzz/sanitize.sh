#!/bin/bash
# Builds a copy of the tree with AddressSanitizer and UndefinedBehaviorSanitizer and runs tests in it:
#   tests/fuzz/sanitize.sh [pytest arguments]      default: the sweep and all tests of compiled code
#   LAYER45_FUZZ_S=600 tests/fuzz/sanitize.sh tests/fuzz     ten minutes of chaos
# Status 0: no test failed and no sanitizer spoke. The checkout is not touched; the copy is removed at the end.
# LAYER45_PCAPS (a folder of captures) and PYTHON (default: the checkout's .venv) are heeded.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${PYTHON:-$here/.venv/bin/python}"
copy="$(mktemp -d /tmp/layer45-sanitize.XXXXXX)"
trap 'rm -rf "$copy"' EXIT
# The shadow of memory grows with what is touched: a test of peak memory says nothing here.
[ $# -gt 0 ] || set -- tests/replay tests/modules tests/unit -m "not root" --ignore-glob='*/test_house*' \
    --deselect tests/replay/test_files.py::test_memory_does_not_grow_with_the_capture

if [ -z "${LAYER45_PCAPS:-}" ] && [ -d "$here/../shared/pcaps" ]; then
    LAYER45_PCAPS="$(cd "$here/../shared/pcaps" && pwd)"
fi
export LAYER45_PCAPS="${LAYER45_PCAPS:-}"

tar --create --directory "$here" --exclude=./.venv --exclude=./.git --exclude=./build --exclude='*.so' \
    --exclude='./fastpath/*.c' --exclude='./modules/*/*.c' . | tar --extract --directory "$copy"
cd "$copy"
LAYER45_SANITIZE=address,undefined "$python" setup.py build_ext --inplace >build.log 2>&1 </dev/null \
    || { cat build.log >&2; echo "sanitize: compiling failed, see above" >&2; exit 1; }

# The interpreter is not instrumented: the runtime comes first by preloading, and its own leaks are not ours to count.
# allocator_may_return_null: tests ask for impossible amounts of memory on purpose.
preload="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)"
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:exitcode=66:allocator_may_return_null=1:log_path=$copy/report"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=0:log_path=$copy/report"
export PYTHONMALLOC=malloc PYTHONPATH="$copy"
# What tests compile themselves is instrumented too.
export CFLAGS="-fsanitize=address,undefined -fno-omit-frame-pointer -g" LDFLAGS="-fsanitize=address,undefined"

# The copy's code must be what runs, and be instrumented, or silence would mean nothing.
loaded="$(LD_PRELOAD="$preload" "$python" -c 'import layer45.fastpath.replay as replay; print(replay.__file__)')"
if [[ "$loaded" != "$copy"/* ]] || ! grep -q __asan_report "$loaded" || ! grep -q __ubsan_handle "$loaded"; then
    echo "sanitize: $loaded is not the instrumented build" >&2
    exit 1
fi

status=0
LD_PRELOAD="$preload" "$python" -m pytest -p no:cacheprovider "$@" </dev/null || status=$?
shopt -s nullglob
for report in "$copy"/report.*; do
    cat "$report" >&2
    status=1
done
[ "$status" = 0 ] && echo "sanitize: no test failed, and no sanitizer spoke"
exit "$status"
