"""Errors on their way between processes of one run.

In: an error met in a child. Out: the pickled message that its parent raises again. Trust: sound (no verdict here).
"""

import pickle


def error_message(error: Exception) -> bytes:
    """The pickle of ("error", error), which always loads: an error that no pickle carries travels as a RuntimeError.

    That one has its class, its text and its notes, and a note on why the error itself could not travel.
    """
    try:
        message = pickle.dumps(("error", error))
        pickle.loads(message)
        return message
    except Exception as obstacle:  # classes of others may raise anything while they are pickled or made anew
        told = RuntimeError(f"{type(error).__name__}: {error}")
        obstructed = f"it cannot be pickled: {type(obstacle).__name__}: {obstacle}"
        for note in (*getattr(error, "__notes__", ()), obstructed):
            told.add_note(note)
        return pickle.dumps(("error", told))
