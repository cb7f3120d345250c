"""``retina`` and ``python -m retina``: the command line and its exit codes."""

from __future__ import annotations

import errno
import os
import sys

_LESS_MEMORY = (
    "lower the batch size (training.batch_size and evaluation.batch_size, or --batch-size) or the "
    "image size (preprocess.min_size and max_size)"
)


def main() -> None:
    """Run the command line.

    Exit codes: 0 success; 1 done, but some inputs failed; 2 a mistake of the user; 3 a fault of the
    machine or the run; 130, 143 and 138 stopped by SIGINT, SIGTERM and SIGUSR1.
    """
    _spin_shortly()  # before PyTorch is imported
    from retina.cli.main import make_app
    from retina.errors import RunError, UserError
    from retina.wording import first_line, write_any_text_to

    write_any_text_to(sys.stdout, sys.stderr)
    try:
        make_app(sys.argv[1:])()
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except RunError as error:
        _say(f"failed: {error}")
        sys.exit(3)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _say(f"failed: the disk is full ({error}); free some space and go on")
            sys.exit(3)
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            _say(f"error: {error.filename}: no usable path ({error.strerror}); correct it")
            sys.exit(2)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            _say(f"error: {error.filename}: permission denied; choose another folder")
            sys.exit(2)
        from retina.datasets.worker_faults import fault_of_workers

        fault = fault_of_workers(error)
        if fault is None:
            raise
        _say(f"failed: {fault}")
        sys.exit(3)
    except MemoryError:
        _say(f"failed: the machine is out of memory; {_LESS_MEMORY}")
        sys.exit(3)
    except RuntimeError as error:
        from retina.datasets.worker_faults import fault_of_workers

        text = str(error)
        fault = fault_of_workers(error)  # a worker's death is told in whatever runs just then
        if fault is not None:
            _say(f"failed: {fault}")
            sys.exit(3)
        if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            _say(
                f"error: --compile: {first_line(error)}; install what is missing, or leave it away"
            )
            sys.exit(2)
        if "out of memory" not in text.lower() and "can't allocate memory" not in text:
            raise
        _say(f"failed: the device is out of memory ({text.splitlines()[0]}); {_LESS_MEMORY}")
        sys.exit(3)


def _spin_shortly() -> None:
    """Let GNU OpenMP's threads wait for each other awake for a short time only, then asleep.

    By default they spin thirty times as long, in the time of whatever else needs the core. Measured
    by benchmarks/busy_neighbour.py on two cores: nothing is lost alone, and beside a busy process
    the speed is twice as high.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


def _say(text: str) -> None:
    from retina.cli.options import in_options

    print(in_options(text, sys.argv[1:]), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
