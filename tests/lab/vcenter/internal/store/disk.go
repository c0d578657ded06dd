package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// MaxSnapshots is how many snapshots one disk can have.
const MaxSnapshots = 32

// MiB is the unit capacities are counted in.
const MiB = 1 << 20

// Disk is one first-class disk, without its content.
type Disk struct {
	ID                string            `json:"id"`
	Name              string            `json:"name"`
	CreateTime        time.Time         `json:"createTime"`
	CapacityMiB       int64             `json:"capacityMiB"`
	Datastore         string            `json:"datastore"` // the reference's value, as in "datastore-39"
	FilePath          string            `json:"filePath"`  // as in "[LocalDS_0] fcd/….vmdk"
	BackingObjectID   string            `json:"backingObjectId"`
	Provisioning      string            `json:"provisioning"`
	KeepAfterDeleteVM bool              `json:"keepAfterDeleteVm"`
	NoRelocation      bool              `json:"noRelocation"`
	Tracking          *Tracking         `json:"tracking,omitempty"`
	PastTracking      []string          `json:"pastTracking,omitempty"` // generations whose change ids are worthless
	Attached          *Attachment       `json:"attached,omitempty"`
	Metadata          map[string]string `json:"metadata,omitempty"`
	Snapshots         []Snapshot        `json:"snapshots"`
	Volume            *Volume           `json:"volume,omitempty"`
}

// Snapshot is one point in time of a disk, oldest first in [Disk.Snapshots].
type Snapshot struct {
	ID              string    `json:"id"`
	Description     string    `json:"description"`
	BackingObjectID string    `json:"backingObjectId"`
	CreateTime      time.Time `json:"createTime"`
	CapacityMiB     int64     `json:"capacityMiB"`
	ChangeID        string    `json:"changeId,omitempty"` // only when changes were tracked
}

// Attachment says which virtual machine uses a disk.
type Attachment struct {
	Consumer string `json:"consumer"`
	VM       string `json:"vm"`
}

// Volume is what the container storage service knows of a disk, when it is one
// of its volumes.
type Volume struct {
	Name     string   `json:"name"`
	PolicyID string   `json:"policyId,omitempty"`
	Cluster  Cluster  `json:"cluster"`
	Entities []Entity `json:"entities,omitempty"`
}

// Cluster is the Kubernetes cluster that owns a volume.
type Cluster struct {
	Type         string `json:"type"`
	ID           string `json:"id"`
	User         string `json:"user"`
	Flavor       string `json:"flavor,omitempty"`
	Distribution string `json:"distribution,omitempty"`
}

// Entity is a Kubernetes object that a volume is known by.
type Entity struct {
	Type      string            `json:"type"`
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	ClusterID string            `json:"clusterId,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Refers    []Entity          `json:"refers,omitempty"`
}

// CapacityBytes is the size of the disk in bytes.
func (d *Disk) CapacityBytes() int64 { return d.CapacityMiB * MiB }

// Snapshot finds a snapshot of the disk by its id.
func (d *Disk) Snapshot(id string) (Snapshot, bool) {
	i := d.snapshotIndex(id)
	if i < 0 {
		return Snapshot{}, false
	}
	return d.Snapshots[i], true
}

func (d *Disk) snapshotIndex(id string) int {
	return slices.IndexFunc(d.Snapshots, func(s Snapshot) bool { return s.ID == id })
}

// copy is deep enough that a change to the one never shows in the other.
func (d *Disk) copy() Disk {
	c := *d
	c.Metadata = maps.Clone(d.Metadata)
	c.Snapshots = slices.Clone(d.Snapshots)
	c.PastTracking = slices.Clone(d.PastTracking)
	if d.Tracking != nil {
		tracking := *d.Tracking
		c.Tracking = &tracking
	}
	if d.Attached != nil {
		attached := *d.Attached
		c.Attached = &attached
	}
	if d.Volume != nil {
		volume := *d.Volume
		volume.Entities = slices.Clone(d.Volume.Entities)
		c.Volume = &volume
	}
	return c
}

// Why an operation was refused.
const (
	NotFound        = "NotFound"        // the disk or snapshot does not exist
	InvalidState    = "InvalidState"    // it exists, but not in a state that allows this
	InvalidArgument = "InvalidArgument" // the request makes no sense for any state
	AlreadyExists   = "AlreadyExists"   // the name is taken
	NotTracked      = "NotTracked"      // changes of the disk were not tracked
	NoEpoch         = "NoEpoch"         // they were, and tracking began anew since
	ChangesUnknown  = "ChangesUnknown"  // they were, but not from that point in time on
)

// Refusal is the error of an operation that a real server would refuse too.
type Refusal struct {
	Kind    string // one of the constants above
	Subject string // which property or object it is about
	Why     string
}

func (r *Refusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s: %s", r.Kind, r.Subject, r.Why))
}

func refuse(kind, subject, why string, args ...any) *Refusal {
	return &Refusal{Kind: kind, Subject: subject, Why: fmt.Sprintf(why, args...)}
}
