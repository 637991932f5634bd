package upload

import "errors"

// ErrGone is the word of whoever is to be told that they want to hear no more.
// A [Notifier] wraps it where telling again is of no use.
var ErrGone = errors.New("nobody wants to be told any more")
