//! As much MessagePack as a batch needs; the server's scripts unpack it in C.

/// Writes values one after the other.
#[derive(Default)]
pub(super) struct Pack(Vec<u8>);

impl Pack {
    /// The next `length` values are one array.
    pub(super) fn array(&mut self, length: usize) -> &mut Self {
        match length {
            0..16 => self.0.push(0x90 | length as u8),
            16..0x1_0000 => {
                self.0.push(0xdc);
                self.0.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                self.0.push(0xdd);
                self.0.extend_from_slice(&(length as u32).to_be_bytes());
            }
        }
        self
    }

    /// A number. Scripts read it as a double, exact up to 2⁵³.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        match number {
            0..0x80 => self.0.push(number as u8),
            0x80..0x1_0000 => {
                self.0.push(0xcd);
                self.0.extend_from_slice(&(number as u16).to_be_bytes());
            }
            0x1_0000..0x1_0000_0000 => {
                self.0.push(0xce);
                self.0.extend_from_slice(&(number as u32).to_be_bytes());
            }
            _ => {
                self.0.push(0xcf);
                self.0.extend_from_slice(&number.to_be_bytes());
            }
        }
        self
    }

    /// Minus one.
    pub(super) fn minus_one(&mut self) -> &mut Self {
        self.0.push(0xff);
        self
    }

    /// Bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes_of(&[bytes])
    }

    /// Bytes in parts.
    pub(super) fn bytes_of(&mut self, parts: &[&[u8]]) -> &mut Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        match length {
            0..32 => self.0.push(0xa0 | length as u8),
            32..0x1_0000 => {
                self.0.push(0xda);
                self.0.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                self.0.push(0xdb);
                self.0.extend_from_slice(&(length as u32).to_be_bytes());
            }
        }
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self
    }

    /// All of it.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
