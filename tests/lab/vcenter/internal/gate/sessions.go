package gate

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vslm"
)

// Sessions are the logins that are still good. The simulator has a list of its
// own, but a call that is under way there brings an ended session back to life.
type Sessions struct {
	end func(key string)

	mu      sync.Mutex
	open    map[string]*Session
	ok      int
	refused int
}

// Session is one login.
type Session struct {
	Key        string    `json:"key"`
	LoginTime  time.Time `json:"loginTime"`
	LastActive time.Time `json:"lastActive"`
	UserAgent  string    `json:"userAgent"`
}

// Logins counts how often clients tried to log in.
type Logins struct {
	OK      int `json:"ok"`
	Refused int `json:"refused"`
}

func newSessions(end func(key string)) *Sessions {
	return &Sessions{end: end, open: map[string]*Session{}}
}

// present finds the session that a call belongs to, and takes a stale cookie
// off the request. VSLM looks at the SOAP header only, the others at HTTP's.
func (s *Sessions) present(r *http.Request, c *call) string {
	key := ""
	if r.URL.Path == vslm.Path {
		if c.method.Header.Cookie != nil {
			key = c.method.Header.Cookie.Value
		}
	} else if cookie, err := r.Cookie(soap.SessionCookieName); err == nil {
		key = cookie.Value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.open[key]
	if !ok {
		r.Header.Del("Cookie")
		return ""
	}
	session.LastActive = time.Now().UTC()
	return key
}

// follow keeps the list in step with what the simulator answered.
func (s *Sessions) follow(r *http.Request, c *call, answer *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.HasPrefix(c.method.Name, "Login") && answer.status != http.StatusOK:
		s.refused++
	case strings.HasPrefix(c.method.Name, "Login"), c.method.Name == "CloneSession":
		s.ok++
		s.opened(r, answer)
	case c.method.Name == "Logout" && answer.status == http.StatusOK:
		delete(s.open, c.session)
	}
}

// opened takes a new session in and gives the cookie the form that a real
// server gives it, quotes included.
func (s *Sessions) opened(r *http.Request, answer *answer) {
	response := http.Response{Header: answer.header}
	for _, cookie := range response.Cookies() {
		if cookie.Name != soap.SessionCookieName {
			continue
		}
		now := time.Now().UTC()
		s.open[cookie.Value] = &Session{Key: cookie.Value, LoginTime: now, LastActive: now, UserAgent: r.UserAgent()}
		cookie.Quoted, cookie.Path, cookie.HttpOnly, cookie.Secure = true, "/", true, true
		answer.header.Set("Set-Cookie", cookie.String())
	}
}

// Open are the sessions that are good now, oldest first.
func (s *Sessions) Open() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Session, 0, len(s.open))
	for _, session := range s.open {
		all = append(all, *session)
	}
	slices.SortFunc(all, func(a, b Session) int { return a.LoginTime.Compare(b.LoginTime) })
	return all
}

// Expire ends all sessions, as a restart or a long pause does, and says how many there were.
func (s *Sessions) Expire() int {
	s.mu.Lock()
	keys := make([]string, 0, len(s.open))
	for key := range s.open {
		keys = append(keys, key)
	}
	clear(s.open)
	s.mu.Unlock()
	for _, key := range keys {
		s.end(key)
	}
	return len(keys)
}

// Logins says how often logging in was tried since the start.
func (s *Sessions) Logins() Logins {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Logins{OK: s.ok, Refused: s.refused}
}
