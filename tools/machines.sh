#!/bin/sh
# Trains, compiles, runs and evaluates on odd machines, and prints a line for each: `ok`, `FAILED` with
# the last words, or `skipped` with the reason. CONTRIBUTING.md says what is promised on which.
# Usage: sh tools/machines.sh [NAME...]
#   EP_PYTHON=...               instead of .venv/bin/python
#   EP_PYTHONS="python ..."     further Pythons that have the packages
cd "$(dirname "$0")/.." || exit 2
tree=$PWD asked=$* failed=0 first=
python=${EP_PYTHON:-$tree/.venv/bin/python}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$tree" OMP_NUM_THREADS=1
export EP_NEURO_LAVA_PYTHON="${EP_NEURO_LAVA_PYTHON:-$tree/.venv-lava/bin/python}"
[ -x "$EP_NEURO_LAVA_PYTHON" ] && lava=lava || lava=

# machine NAME "TARGET..." COMMAND...: the job of tools/machine_job.py, run by COMMAND.
machine() {
    name=$1 targets=$2
    shift 2
    [ -z "$asked" ] || case " $asked " in *" $name "*) ;; *) return ;; esac
    log=$work/$name.log began=$(date +%s)
    mkdir "$work/$name"
    if ! "$@" true >"$log" 2>&1; then
        echo "$name: skipped: $(tail -n 1 "$log")"
        return
    fi
    # shellcheck disable=SC2086 # targets are words
    (cd "$work/$name" && timeout 600 "$@" "$python" "$tree/tools/machine_job.py" $targets) >"$log" 2>&1
    code=$? weights=$(sed -n 's/^weights //p' "$log" | sort -u)
    if [ $code != 0 ]; then
        echo "$name: FAILED: $(tail -n 1 "$log")"
    elif [ "$weights" != "${first:=$weights}" ]; then
        echo "$name: FAILED: the weights are not those of the first machine"
    else
        echo "$name: ok, $(($(date +%s) - began)) s"
        return
    fi
    failed=1
}

# What stands before `sh -c` gives a command mounts of its own.
own="unshare --mount"
[ "$(id -u)" = 0 ] || own="$own --map-root-user"
frozen='for place; do mount --bind "$place" "$place" && mount -o remount,bind,ro "$place" || exit 1; done'
packages=$("$python" -c 'import importlib.util as u, os; print(os.path.dirname(os.path.dirname(u.find_spec("torch").origin)))')
core=$(taskset -cp $$ 2>/dev/null | sed 's/.*: //; s/[-,].*//')

machine plain "reference brian2 $lava" env
machine no-home "reference brian2 $lava" env -u HOME
machine no-name "reference brian2 $lava" \
    unshare --user --map-user=54321 --map-group=54321 env -u HOME -u USER -u LOGNAME
machine read-only "reference brian2 $lava" \
    $own sh -c "(set -- '$packages' '$tree'; $frozen)"' && exec "$@"' sh
machine no-shm "reference brian2 ${lava:+-lava}" \
    $own sh -c 'mount -t tmpfs -o ro none /dev/shm && exec "$@"' sh
machine one-core "reference brian2 $lava" taskset -c "${core:-0}"
machine no-fork "reference -brian2 ${lava:+-lava}" "$python" "$tree/tools/no_fork.py"
machine two-at-once "reference brian2" \
    sh -c 'mkdir -p a b; (cd a && "$@") & one=$!; (cd b && "$@") && wait $one' sh
for python in ${EP_PYTHONS:-}; do
    first=
    machine "$("$python" -c 'import sys; print("python-%d.%d" % sys.version_info[:2])')" "reference brian2" env
done
exit $failed
