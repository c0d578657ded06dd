package store

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// pastGenerations is how many ended trackings of a disk are remembered, so
// that their change ids can be told from those of other disks.
const pastGenerations = 64

// Tracking is changed block tracking, while it is switched on.
type Tracking struct {
	Generation string `json:"generation"` // 16 bytes in hexadecimal; new whenever old change ids become worthless
	Epoch      int    `json:"epoch"`      // grows by one with each snapshot
}

// changeID has the form that vSphere uses: bytes in hexadecimal, apart by
// blanks and one dash, and the epoch.
func (t *Tracking) changeID() string {
	raw, err := hex.DecodeString(t.Generation)
	if err != nil || len(raw) != 16 {
		return ""
	}
	return fmt.Sprintf("% x-% x/%d", raw[:8], raw[8:], t.Epoch)
}

var changeIDForm = regexp.MustCompile(`^([0-9a-f]{2}(?: [0-9a-f]{2}){7})-([0-9a-f]{2}(?: [0-9a-f]{2}){7})/(\d{1,9})$`)

// parseChangeID takes a change id apart again; false when it is none.
func parseChangeID(text string) (Tracking, bool) {
	parts := changeIDForm.FindStringSubmatch(text)
	if parts == nil {
		return Tracking{}, false
	}
	epoch, err := strconv.Atoi(parts[3])
	return Tracking{Generation: strings.ReplaceAll(parts[1]+parts[2], " ", ""), Epoch: epoch}, err == nil
}

// Track switches changed block tracking of a disk on or off. Switching it off
// makes all change ids of the past worthless; switching on what is on does nothing.
func (d *Disk) Track(on bool) {
	switch {
	case !on:
		d.endTracking()
	case d.Tracking == nil:
		d.Tracking = &Tracking{Generation: randomHex(16)}
	}
}

// ResetTracking makes all change ids of the past worthless without switching
// tracking off.
func (d *Disk) ResetTracking() {
	if d.Tracking != nil {
		d.endTracking()
		d.Track(true)
	}
}

func (d *Disk) endTracking() {
	if d.Tracking == nil {
		return
	}
	d.PastTracking = append(d.PastTracking, d.Tracking.Generation)
	d.PastTracking = d.PastTracking[max(0, len(d.PastTracking)-pastGenerations):]
	d.Tracking = nil
}

// gave says whether a change id can be one of this disk's, of now or of the past.
func (d *Disk) gave(id Tracking) bool {
	return (d.Tracking != nil && d.Tracking.Generation == id.Generation) || slices.Contains(d.PastTracking, id.Generation)
}

// TrackNewDisks says whether disks that are made from now on are tracked.
func (s *Store) TrackNewDisks(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trackNew = on
}

// TracksNewDisks says what was last set; false at the start.
func (s *Store) TracksNewDisks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trackNew
}
