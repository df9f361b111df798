//! A client that speaks the protocol itself: it can vanish without a goodbye, and cancel as libpq does.

use std::{
    io::{Error, Read, Result, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use pg_tenancy_tests::{Pooler, Role};

const PROTOCOL: u32 = 196_608;
const CANCEL_REQUEST: u32 = 80_877_102;

pub struct Wire {
    socket: UnixStream,
    path: PathBuf,
    /// What a cancel request names the connection by.
    key: Vec<u8>,
}

/// What a query came to.
pub enum Answer {
    /// The first column of each row.
    Rows(Vec<String>),
    /// With this SQLSTATE.
    Refused(String),
}

impl Wire {
    pub fn connect(pooler: &Pooler, role: &Role) -> Result<Self> {
        let path = pooler.socket();
        let mut wire = Self { socket: UnixStream::connect(&path)?, path, key: Vec::new() };
        let mut startup = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", role.name(), "database", pooler.database(), ""] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        wire.socket.write_all(&(startup.len() as u32 + 4).to_be_bytes())?;
        wire.socket.write_all(&startup)?;
        match wire.answer()? {
            Answer::Rows(_) => Ok(wire),
            Answer::Refused(state) => Err(Error::other(state)),
        }
    }

    /// Sends a query and does not wait.
    pub fn ask(&mut self, sql: &str) -> Result<()> {
        self.socket.write_all(b"Q")?;
        self.socket.write_all(&(sql.len() as u32 + 5).to_be_bytes())?;
        self.socket.write_all(sql.as_bytes())?;
        self.socket.write_all(&[0])
    }

    /// Waits for the query's end.
    pub fn answer(&mut self) -> Result<Answer> {
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            let mut kind = [0];
            self.socket.read_exact(&mut kind)?;
            let mut length = [0; 4];
            self.socket.read_exact(&mut length)?;
            let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
            self.socket.read_exact(&mut body)?;
            match kind[0] {
                b'Z' => return Ok(refused.map_or(Answer::Rows(rows), Answer::Refused)),
                b'K' => self.key = body,
                b'D' => rows.push(first_column(&body)),
                b'E' => refused = Some(state(&body)),
                _ => {}
            }
        }
    }

    /// Asks to cancel the query. Waits until that was passed on: PgBouncer 1.18 ends itself when such a client goes before.
    pub fn cancel(&self) -> Result<()> {
        let mut socket = UnixStream::connect(&self.path)?;
        let mut request = (self.key.len() as u32 + 8).to_be_bytes().to_vec();
        request.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        request.extend_from_slice(&self.key);
        socket.write_all(&request)?;
        socket.read_to_end(&mut Vec::new()).map(drop)
    }
}

fn first_column(row: &[u8]) -> String {
    let length = u32::from_be_bytes([row[2], row[3], row[4], row[5]]) as usize;
    String::from_utf8_lossy(&row[6..6 + length]).into_owned()
}

/// The field C of an error.
fn state(error: &[u8]) -> String {
    let fields = error.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    fields.filter_map(|field| field.strip_prefix('C').map(str::to_owned)).next().unwrap_or_default()
}
