package cmd

import (
	"fmt"

	"sidegate/policy/document"
	"sidegate/storage/audit"
)

// A disk says what lies under a folder.
type disk uint8

const (
	diskUnknown   disk = iota // or an ordinary one
	diskMemory                // tmpfs, ramfs: a restart of the machine loses it
	diskContainer             // overlayfs: a restart of the container loses it
)

// onCloudRun goes by the variable that Cloud Run's container contract promises
// (cloud.google.com/run/docs/container-contract).
func (l *configLoader) onCloudRun() bool { return l.env.get(cloudRunVariable) != "" }

const cloudRunVariable = "K_SERVICE"

const ephemeralAdvice = `write these two lines instead (or accept the loss with --insecure-ephemeral):
    storage: {firestore: {project: "${env:GOOGLE_CLOUD_PROJECT}"}}
    audit: {survive: machine, firestore: {project: "${env:GOOGLE_CLOUD_PROJECT}"}}`

// checkPlaces refuses to keep on a disk that is memory what must outlive it.
func (l *configLoader) checkPlaces(root document.Map, c *Config) {
	sessions, events := root.Get("storage"), root.Get("audit")
	sessionsHere := c.Storage.LocalDir != ""
	eventsHere := c.Audit.Dir != "" && c.Audit.Survive < audit.Machine
	if l.onCloudRun() {
		at := root.Value
		switch {
		case !sessionsHere && !eventsHere:
			return
		case sessionsHere && sessions.Present():
			at = sessions
		case events.Present():
			at = events
		}
		l.refuseEphemeral(at, "on Cloud Run (K_SERVICE is set) the disk is memory, and what lies there ends with the instance", "")
		return
	}
	if sessionsHere {
		l.checkDisk(orRoot(sessions, root), "storage.local.dir", c.Storage.LocalDir)
	}
	if eventsHere {
		l.checkDisk(orRoot(events, root), "audit.dir", c.Audit.Dir)
	}
}

func orRoot(v document.Value, root document.Map) document.Value {
	if v.Present() {
		return v
	}
	return root.Value
}

func (l *configLoader) checkDisk(at document.Value, key, dir string) {
	switch l.diskOf(dir) {
	case diskMemory:
		l.refuseEphemeral(at, fmt.Sprintf("`%s` lies on a tmpfs, which is memory, and ends with this machine", key), "name a folder on a disk, or ")
	case diskContainer:
		l.warn(at, "`%s` lies in the container's own layer (overlayfs), which a new container does not have: mount a volume there", key)
	}
}

// refuseEphemeral is a mistake, or a warning where the operator allowed it.
func (l *configLoader) refuseEphemeral(at document.Value, why, other string) {
	if l.insecure.ephemeral {
		l.warn(at, "--insecure-ephemeral: %s", why)
		return
	}
	at.Errorf("%s: %s%s", why, other, ephemeralAdvice)
}
