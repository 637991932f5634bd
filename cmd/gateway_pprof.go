package cmd

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"
)

const (
	// pprofPath is where the admin listener serves profiles, with --pprof.
	pprofPath = "/debug/pprof/"
	// longestProfile is how many seconds one may be asked to take. net/http/pprof
	// moves the listener's time-out to their end.
	longestProfile = 120
)

// servePprof serves what `go tool pprof` asks for. Profiles hold names of
// functions and counts, nothing of requests; but they cost CPU, and tell what the
// gateway is at: only this machine gets them, and only if the operator said so at
// the start. The process's command line, which net/http/pprof has too, stays away.
func servePprof(mux *http.ServeMux) {
	here := func(answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if status, err := fromHere(r, "profiles are told"); err != nil {
				writeAdminError(w, status, err)
				return
			}
			if r.ContentLength != 0 { // net/http/pprof would also read a form in it
				writeAdminError(w, http.StatusBadRequest, errors.New("a profile is asked for without a body"))
				return
			}
			if s := r.URL.Query().Get("seconds"); s != "" {
				if n, err := strconv.ParseFloat(s, 64); err != nil || !(n > 0 && n <= longestProfile) {
					writeAdminError(w, http.StatusBadRequest, fmt.Errorf("seconds must be a number up to %d", longestProfile))
					return
				}
			}
			w.Header().Set("Cache-Control", "no-store")
			answer(w, r)
		}
	}
	mux.HandleFunc("GET "+pprofPath, here(pprof.Index)) // with the name of a profile behind it: that one
	mux.HandleFunc("GET "+pprofPath+"profile", here(pprof.Profile))
	mux.HandleFunc("GET "+pprofPath+"trace", here(pprof.Trace))
	for _, name := range []string{"cmdline", "symbol"} {
		mux.HandleFunc("GET "+pprofPath+name, http.NotFound)
	}
}
