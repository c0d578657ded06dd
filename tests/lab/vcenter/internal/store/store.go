package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Store is all disks below one folder. It may be used by many at a time:
// operations on one disk wait for each other, those on different disks do not.
type Store struct {
	dir      string
	onChange func(id string)

	mu       sync.Mutex
	disks    map[string]*Disk
	turns    map[string]*sync.Mutex // whose turn it is to copy or drop a disk's files
	trackNew bool                   // whether changes of new disks are tracked
}

// NewDisk says what disk to make. The store chooses what is left empty.
type NewDisk struct {
	Name          string
	CapacityMiB   int64
	Datastore     string // reference value
	DatastoreName string
	Provisioning  string
	Keep          bool
	Metadata      map[string]string
	Volume        *Volume
}

// NewSnapshot says what snapshot to take.
type NewSnapshot struct {
	ID          string // chosen by the store when empty
	Description string
}

// Open reads the disks below a folder, which is made when it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, onChange: func(string) {}, disks: map[string]*Disk{}, turns: map[string]*sync.Mutex{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if err := s.load(entry); err != nil {
			return nil, fmt.Errorf("read disk %s: %w", entry.Name(), err)
		}
	}
	return s, nil
}

// load takes one folder in, or clears away what an interrupted operation left.
func (s *Store) load(entry fs.DirEntry) error {
	path := filepath.Join(s.dir, entry.Name())
	if strings.HasPrefix(entry.Name(), ".") {
		return os.RemoveAll(path)
	}
	if !entry.IsDir() {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(path, "disk.json"))
	if errors.Is(err, fs.ErrNotExist) {
		log.Printf("%s has no disk.json and is no disk", path)
		return nil
	}
	if err != nil {
		return err
	}
	disk := new(Disk)
	if err := json.Unmarshal(text, disk); err != nil {
		return err
	}
	if disk.ID != entry.Name() {
		return fmt.Errorf("disk.json is about disk %q", disk.ID)
	}
	s.disks[disk.ID] = disk
	return s.sweep(disk)
}

// sweep removes snapshot files that no snapshot owns, and marks that nobody can ask for.
func (s *Store) sweep(disk *Disk) error {
	folder := filepath.Join(s.dir, disk.ID, "snapshots")
	files, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, file := range files {
		if disk.snapshotIndex(strings.TrimSuffix(file.Name(), ".raw")) < 0 {
			if err := os.Remove(filepath.Join(folder, file.Name())); err != nil {
				return err
			}
		}
	}
	return s.sweepMarks(disk)
}

// OnChange has a function called with a disk's id after each change of the
// disk, which may be that it is gone. To be set before the store is used.
func (s *Store) OnChange(f func(id string)) { s.onChange = f }

// Dir is the folder that the store keeps everything in.
func (s *Store) Dir() string { return s.dir }

// DiskPath is the file with the disk's content.
func (s *Store) DiskPath(disk string) string { return filepath.Join(s.dir, disk, "disk.raw") }

// SnapshotPath is the file with the snapshot's content.
func (s *Store) SnapshotPath(disk, snapshot string) string {
	return filepath.Join(s.dir, disk, "snapshots", snapshot+".raw")
}

// WriteScript replaces a file of the given name at the store's root.
func (s *Store) WriteScript(name string, content []byte) error {
	return writeFile(filepath.Join(s.dir, name), content)
}

// Disks are all disks, oldest first.
func (s *Store) Disks() []Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Disk, 0, len(s.disks))
	for _, disk := range s.disks {
		all = append(all, disk.copy())
	}
	slices.SortFunc(all, func(a, b Disk) int {
		if order := a.CreateTime.Compare(b.CreateTime); order != 0 {
			return order
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// Disk is one disk, as it is now.
func (s *Store) Disk(id string) (Disk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	disk, ok := s.disks[id]
	if !ok {
		return Disk{}, refuse(NotFound, "disk "+id, "there is no such disk")
	}
	return disk.copy(), nil
}

// Change edits what is known of a disk; content and snapshots are not its to touch.
func (s *Store) Change(id string, edit func(*Disk) error) error {
	err := s.edit(id, edit)
	if err == nil {
		s.onChange(id)
	}
	return err
}

func (s *Store) edit(id string, edit func(*Disk) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	disk, ok := s.disks[id]
	if !ok {
		return refuse(NotFound, "disk "+id, "there is no such disk")
	}
	changed := disk.copy()
	if err := edit(&changed); err != nil {
		return err
	}
	if err := s.save(&changed); err != nil {
		return err
	}
	s.disks[id] = &changed
	return nil
}

func (s *Store) save(disk *Disk) error {
	text, err := json.MarshalIndent(disk, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(s.dir, disk.ID, "disk.json"), append(text, '\n'))
}

// turn waits until nobody else works on the disk's files.
func (s *Store) turn(id string) (done func()) {
	s.mu.Lock()
	turn, ok := s.turns[id]
	if !ok {
		turn = new(sync.Mutex)
		s.turns[id] = turn
	}
	s.mu.Unlock()
	turn.Lock()
	return turn.Unlock
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	_, _ = rand.Read(raw) // never fails: documented by the package
	return hex.EncodeToString(raw)
}

func dirOf(path string) string { return filepath.Dir(path) }

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func newID() string { return uuid.New().String() }

// validID keeps ids that callers choose from naming other files.
var validID = regexp.MustCompile(`^[0-9a-fA-F-]{8,64}$`)
