//! The extended protocol by hand: what drivers do not do, but a client may.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use pg_tenancy_tests::{Db, Role};

/// A connection whose client sends what it likes.
pub struct Wire(UnixStream);

/// What came back until the server was ready again: the first column of each row, or an error's SQLSTATE.
pub type Answer = Result<Vec<String>, String>;

impl Wire {
    pub fn open(db: &Db, role: &Role) -> Self {
        let cluster = db.cluster();
        let socket = cluster.sockets().join(format!(".s.PGSQL.{}", cluster.port()));
        let mut wire = Self(UnixStream::connect(socket).unwrap());
        let mut startup = 196_608_i32.to_be_bytes().to_vec();
        for text in ["user", role.name(), "database", db.name()] {
            push_text(&mut startup, text);
        }
        startup.push(0);
        let length = (startup.len() as i32 + 4).to_be_bytes();
        wire.0.write_all(&[&length[..], &startup].concat()).unwrap();
        wire.answer().unwrap();
        wire
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let length = (body.len() as i32 + 4).to_be_bytes();
        self.0.write_all(&[&[kind], &length[..], body].concat()).unwrap();
    }

    /// Parse; the statement is unnamed when its name is empty.
    pub fn parse(&mut self, name: &str, sql: &str) {
        let mut body = Vec::new();
        push_text(&mut body, name);
        push_text(&mut body, sql);
        body.extend(0_i16.to_be_bytes());
        self.send(b'P', &body);
    }

    /// Bind to a portal, with text parameters.
    pub fn bind(&mut self, portal: &str, statement: &str, parameters: &[&str]) {
        let mut body = Vec::new();
        push_text(&mut body, portal);
        push_text(&mut body, statement);
        body.extend(0_i16.to_be_bytes());
        body.extend((parameters.len() as i16).to_be_bytes());
        for parameter in parameters {
            body.extend((parameter.len() as i32).to_be_bytes());
            body.extend(parameter.as_bytes());
        }
        body.extend(0_i16.to_be_bytes());
        self.send(b'B', &body);
    }

    /// Execute; at most so many rows, 0 for all.
    pub fn execute(&mut self, portal: &str, rows: i32) {
        let mut body = Vec::new();
        push_text(&mut body, portal);
        body.extend(rows.to_be_bytes());
        self.send(b'E', &body);
    }

    pub fn sync(&mut self) -> Answer {
        self.send(b'S', &[]);
        self.answer()
    }

    /// Bind and Execute of a statement that was parsed before.
    pub fn run(&mut self, statement: &str, parameters: &[&str]) -> Answer {
        self.bind("", statement, parameters);
        self.execute("", 0);
        self.sync()
    }

    fn answer(&mut self) -> Answer {
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).unwrap();
            let length = i32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).unwrap();
            match head[0] {
                b'D' => rows.push(first_column(&body)),
                b'E' => error = error.or_else(|| sqlstate(&body)),
                b'Z' => return error.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.as_bytes());
    body.push(0);
}

fn first_column(body: &[u8]) -> String {
    match i32::from_be_bytes(body[2..6].try_into().unwrap()) {
        -1 => "NULL".to_owned(),
        length => String::from_utf8(body[6..6 + length as usize].to_vec()).unwrap(),
    }
}

fn sqlstate(body: &[u8]) -> Option<String> {
    body.split(|byte| *byte == 0)
        .find_map(|field| Some(String::from_utf8_lossy(field.strip_prefix(b"C")?).into_owned()))
}
