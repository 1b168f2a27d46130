"""Source videos to a store of prepared videos, and what such a store on disk is.

In the path of a sample this package stands between the source files and the clips that are read from a store.
"""

from earmark.preparation.catalog import PreparedVideo, StoreError, prepared_file, stretched
from earmark.preparation.options import MomentSearch, Transcoding, store_parameters
from earmark.preparation.preparing import PrepareError, prepare
from earmark.preparation.progress import PrepareReport
from earmark.preparation.tables import read_catalog, read_parameters
from earmark.preparation.verifying import Fault, VerifyReport, invalidate, repair, verify
from earmark.preparation.workers import Backend, BackendError

__all__ = [
    "Backend",
    "BackendError",
    "Fault",
    "MomentSearch",
    "PrepareError",
    "PrepareReport",
    "PreparedVideo",
    "StoreError",
    "Transcoding",
    "VerifyReport",
    "invalidate",
    "prepare",
    "prepared_file",
    "read_catalog",
    "read_parameters",
    "repair",
    "store_parameters",
    "stretched",
    "verify",
]
