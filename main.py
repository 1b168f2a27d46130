"""The original's command line: python main.py --config-name=default_ssrl|default_lincls [-m] [OVERRIDE ...]."""

import sys

from earmark.cli.main import main_by_config_name

if __name__ == "__main__":  # processes that are started from this one import it again
    sys.exit(main_by_config_name(sys.argv[1:]))
